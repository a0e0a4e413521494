"""What a developer's machine needs beside the gate; the image holds none of it."""
