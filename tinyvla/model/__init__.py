"""Chapters 2 (vision), 3 (language), 4 (fusion), 7 (action heads), 10 (pretrained parts): the policy and its parts.

layers             attention, MLP, block, positions
vision             an image becomes patch tokens (chapter 2)
tokenizer          a sentence becomes numbers (chapter 3)
language           numbers become word states (chapter 3)
fusion             the words choose what to look at (chapter 4)
heads/             a feature becomes an action (chapters 4 and 7)
normalize          actions and states in comparable units (chapter 7)
observation        what a robot sees, feels and is told, made ready for the model
pretrained         towers from the Hugging Face hub (chapter 10)
policy             all of it together: TinyVLA
checkpoint_files   where a checkpoint is, and what its config.json says
"""
