"""The conformance kit: what always holds for policies and decoders, as checks that explain themselves.

``policy_checks`` and ``decoder_checks`` define the checks, ``kit`` runs them. ``freshkv.testing.contract`` gives them
to pytest, ``freshkv check`` to the command line.
"""
