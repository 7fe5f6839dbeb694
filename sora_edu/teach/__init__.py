"""Exercises, quizzes, figures and widgets of the notebooks."""
