"""
Files and history side by side: what is pending, where they disagree. Pure.

``plan`` compares them; ``naming`` finds the migration that a person names;
``adoption`` compares files with another tool's history.
"""
