"""
Log in by the identity that the cloud gives: a token in the password's place.

``tokens`` is what the connection asks; ``azure``, ``aws`` and ``google`` ask their
provider, by its own SDK, which is loaded only then; ``answers`` says what an answer
of a provider means. A token is in memory, and in what is sent to the database.
"""
