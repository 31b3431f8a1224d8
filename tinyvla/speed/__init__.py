"""Chapters 9 (speed) and 12 (scaling): the same training step, faster, in less memory, on several GPUs; and its cost.

step             chooses the kind of step: `make_step` (start here for speed)
tuned            a step with options: bfloat16, used embedding rows, gradient accumulation, recomputation
cuda_graph       a step recorded as a CUDA graph and replayed (chapter 9)
precision        matrix products in bfloat16 (chapter 9)
embedding_rows   updates only the rows of the words that occur (chapter 9)
patching         how a policy's methods are exchanged for the time of a step (chapter 9)
scaling          parameters, operations and bytes, counted before anything runs (start here for scaling, chapter 12)
memory           gradient accumulation, and activations that are computed twice (chapter 12)
data_parallel    several GPUs train one policy (chapter 12)
"""
