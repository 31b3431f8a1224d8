"""Chapter 14: Meta-World MT50, a benchmark that others report on.

tasks         the 50 tasks, their sentences and four groups of difficulty
scene         one task's simulator, picture and expert, set up as LeRobot's evaluation sets it up
world         episodes side by side, behind what every world of the course offers
workers       processes that simulate: how many, and how they end
collect       demonstrations of the scripted experts, over processes and GPUs
answer        a policy as what the judge asks
judge         one policy acts in many episodes, which run in processes
report        how the episodes went, for each task and each group of difficulty

It needs `metaworld` 3.1.1 with MuJoCo 3.3.0, and EGL to draw without a screen.
"""
