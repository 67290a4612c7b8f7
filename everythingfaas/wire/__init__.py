"""What dispatcher and workers say to each other: `messages` are the words, `frames` their bytes."""
