"""``python -m freshkv``, which ``accelerate launch -m freshkv`` runs in every process."""

from freshkv.cli import main

if __name__ == "__main__":
    main()
