"""Chapters 10 and 11: a policy that starts from what is known already.

contrastive   towers pretrained on pictures and captions (chapter 10)
lora          a trained policy changed by one percent of its weights (chapter 11)
"""
