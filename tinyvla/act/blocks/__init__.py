"""Chapter 8: the block world, in which a camera moves over coloured blocks until it stops on the named one.

world      the episodes: what is seen, what a step does, what the expert would do
painting   the pictures: views with blocks at any pixel, and frames for people
env        the same world for Gymnasium; it needs that package
"""
