"""
Files and history side by side: what is pending, where they disagree. Pure.
"""
