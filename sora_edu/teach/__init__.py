"""Exercises, quizzes, figures and widgets of the notebooks.

A notebook needs one line: `from sora_edu.teach import check, hint, progress, quiz, solution, use`.
"""

from sora_edu.teach.engine import check, hint, solution, use
from sora_edu.teach.progress import progress
from sora_edu.teach.quiz import quiz

__all__ = ["check", "hint", "progress", "quiz", "solution", "use"]
