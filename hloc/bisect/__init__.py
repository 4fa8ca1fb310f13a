"""Which pass broke the answer: the search for it, and making a module small while something stays true of it."""
