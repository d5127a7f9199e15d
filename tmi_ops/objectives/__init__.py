"""RPO and RTO: what is recoverable now, how long that would take, and whether the objectives are met.

1. `reading.py`: `read_recoverability(settings, store, now)` reads the store and, if it answers, the server, once.
2. `rpo.py`: `judge_rpo(facts, objectives)`, `rto.py`: `forecast_rto`, `stream.py`: `judge_stream` judge. Pure.
3. `history.py`: `record_reading(store, facts, rpo)` records the RPO; `worst_over` returns the worst of a past period.
4. Each result has a `standing` (met, at risk, breached, unknown), a reason in a sentence, and `cures`, cheapest first
   (`cures.py`): the command prints them and the sensors start them.
5. `timetable.py`: `plan_timetable(objectives)` says how often everything must run.
"""
