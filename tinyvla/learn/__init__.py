"""Chapters 5 and 6: training a policy, and judging it.

train        the loop (chapter 5)
optimizer    AdamW, the learning rate's schedule; muon is chapter 9's
checkpoint   a run's folder: save, resume (chapter 5)
evaluate     metrics, floors, the instruction swap (chapter 6)
"""
