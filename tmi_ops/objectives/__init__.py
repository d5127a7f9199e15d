"""Are we safe? RPO and RTO: what is recoverable right now, how long it would take, and what each promise is worth.

1. `reading.py`: `read_recoverability(settings, store, now)` reads store and, where it can be asked, the server, once.
2. `rpo.py`: `judge_rpo(facts, objectives)`, `rto.py`: `forecast_rto`, `stream.py`: `judge_stream` decide. Pure.
3. `history.py`: `record_reading(store, facts, rpo)` keeps what was read; `worst_over` tells the worst of the past.
4. Each judgement has a `standing` (met, at risk, breached, unknown), a reason in plain words, and `cures`, the cheapest
   first (`cures.py`): what the command prints and the sensors do.
5. `timetable.py`: `plan_timetable(objectives)` says how often everything must run for that.
"""
