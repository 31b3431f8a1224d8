"""Chapters 9 and 12: the same training step, faster, in less memory, on several GPUs; and what it costs on paper.

step        which kind of step: `make_step`
tuned       in bfloat16, on the embedding's rows in use (chapter 9), in parts, computed twice (chapter 12)
precision   products in bfloat16 (chapter 9)
rows        only the words that occur (chapter 9)
recorded    a CUDA graph, replayed (chapter 9)
patch       how a policy is changed for the time of a step (chapter 9)
memory      a batch in parts, activations computed twice (chapter 12)
processes   several GPUs (chapter 12)
budget      parameters, operations and bytes, counted before anything runs (chapter 12)
"""
