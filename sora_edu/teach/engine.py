"""The exercise engine: `check`, `hint`, `solution` and `use`.

How to write an exercise: see `sora_edu.teach.exercise`.
"""
