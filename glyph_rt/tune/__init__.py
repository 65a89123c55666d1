"""The search over page styles: which of them a model reads as well or better, in fewer visual tokens or less time.

`space.py` says which styles there are and which can be read at all, `trial.py` tries one, `search.py` chooses what to try next (Optuna's
NSGA-II, and a `critic.py` where there is one), `front.py` keeps what nothing else beats, `judgement.py` judges it on documents that the
search never saw, `report.py` writes it down.
"""
