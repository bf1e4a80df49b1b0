"""How the bundled models were trained, and how the training was judged. Not part of the installed package."""
