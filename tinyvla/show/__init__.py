"""All chapters: figures, film strips, and widgets to play with."""
