"""Chapters 1 and 15: what a policy learns from. Scenes, recorded demonstrations, batches, files.

blockfind        the course's task: coloured blocks, a sentence, an arrow (chapter 1)
batch            what a policy is trained on: named tensors, cut into batches
demonstrations   recorded episodes of any robot, as arrays
lerobot          the same as a LeRobotDataset on disk
"""
