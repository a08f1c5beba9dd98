"""Layer-wise precision scaling and the experiments around it: jobs, rules, costs, statistics, pictures."""

from .experiment import Store
from .jobs import Job, Setting
from .pool import run_jobs
from .rules import RULES, Score
from .scaling import Options, search, setting_of

__all__ = ["Job", "Setting", "Store", "run_jobs", "RULES", "Score", "Options", "search", "setting_of"]
