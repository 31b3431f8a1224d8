"""Chapter 1 (the dataset) and 15 (real data): what a policy learns from. Scenes, demonstrations, batches, files.

dataset          BlockFind, the course's task: coloured blocks, a sentence, an arrow
batch            what a policy is trained on: named tensors, cut into batches
stored           images that stay in their file, batch by batch
resize           images at the policy's size
demonstrations   recorded episodes of any robot, as arrays
report           what is in them, and what is wrong with them
lerobot          the same as a LeRobotDataset on disk or on the hub; its parts are lerobot_layout, _writer, _videos, ...
video            frames out of video files and into them
frame_cache      decoded frames in a file
"""
