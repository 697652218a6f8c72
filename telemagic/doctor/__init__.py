"""`telemagic doctor`: what this machine has, what that means, and what to do about what it lacks."""
