"""
Room.
"""
