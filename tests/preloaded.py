"""Imported once by the server that tests/forked.py forks: what takes seconds to import."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded

import hydra  # noqa: F401
import pandas  # noqa: F401
import torch  # noqa: F401

import scripts.running.run  # noqa: F401
