"""A small Sora, built from its parts: the package behind the course's notebooks.

Importing it is cheap. Every idea lives in a file of its own and is imported by name, for instance
`from sora_edu import positions`.
"""

__version__ = "0.1.0"
