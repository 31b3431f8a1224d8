"""Chapters 8 and 13: worlds to act in, and acting in them.

world           what every world offers: observe, step, expert, succeeded
controller      a policy that acts: a chunk's actions one by one, or the mean of several chunks
rollout         episodes from beginning to end, in any world
result          how the episodes went, and the states that they visited
dagger          the expert labels the states that the policy came to (chapter 8)
block_world     a camera that moves over coloured blocks (chapter 8); block_painting, its pictures
arm/            a robot arm in MuJoCo (chapter 13)
metaworld/      fifty tasks of other people's
env             the block world for Gymnasium
"""
