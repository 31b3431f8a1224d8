"""All chapters: what the notebooks share. Trained policies, measured figures, checks of exercises."""
