"""All chapters: the command line, a conversation in the terminal, a check of the machine."""
