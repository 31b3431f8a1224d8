"""Chapters 8 (closed loop), 13 (a robot arm) and 14 (Meta-World): worlds to act in, and acting in them.

rollout      the closed loop: episodes from beginning to end, in any world (start here)
controller   a policy that acts: a chunk's actions one by one, or the mean of several chunks
world        what every world offers: observe, step, expert, succeeded
result       how the episodes went, and the states that they visited
dagger       the expert labels the states that the policy came to (chapter 8)
blocks/      a camera that moves over coloured blocks (chapter 8)
arm/         a robot arm in MuJoCo (chapter 13)
metaworld/   fifty manipulation tasks of a standard benchmark (chapter 14)
"""
