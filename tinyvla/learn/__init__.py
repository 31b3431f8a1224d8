"""Chapters 5 (training) and 6 (evaluation): training a policy, and judging it.

train        the loop and its plain step (chapter 5)
optimizer    AdamW and the learning rate's schedule (chapter 5)
muon         an optimizer that needs fewer steps (chapter 9)
callbacks    what watches a training: a progress bar, TensorBoard, Ctrl-C
checkpoint   a run's folder: save, resume (chapter 5)
evaluate     metrics, floors, the instruction swap (chapter 6)
"""
