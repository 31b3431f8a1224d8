"""Chapter 1 (the dataset) and 15 (real data): what a policy learns from. Scenes, demonstrations, batches, files.

dataset          BlockFind, the course's task: coloured blocks, a sentence, an arrow
batch            what a policy is trained on: named tensors, cut into batches
demonstrations   recorded episodes of any robot, as arrays
lerobot          the same as a LeRobotDataset on disk
"""
