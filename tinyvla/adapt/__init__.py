"""Chapters 10 (pretrained parts) and 11 (LoRA): a policy that starts from what is known already.

pretraining   towers trained on pictures and captions first (chapter 10)
lora          a trained policy changed by one percent of its weights (chapter 11)
"""
