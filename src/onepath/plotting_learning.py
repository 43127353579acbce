"""Figures of learning: losses, errors, weights of times, and what a budget of calls buys."""
