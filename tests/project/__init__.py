"""The project itself: pages, set-up, fixtures, bench."""
