"""``python -m hwq``: the command line; the form that ``torchrun -m hwq train ...`` needs."""

from .cli import main

if __name__ == "__main__":
    main()
