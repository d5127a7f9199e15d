"""Statements are left out of pg_dump's scripts by what they are; no name or literal can be mistaken for one."""

from __future__ import annotations

from tmi_ops.rescue.definitions import without_attaching, without_foreign_keys, without_guard

ATTACH = "ALTER TABLE ONLY public.events ATTACH PARTITION public.early FOR VALUES FROM (1) TO (10)"
INDEX = "ALTER INDEX public.events_pkey ATTACH PARTITION public.early_pkey"
KEY = "ALTER TABLE ONLY public.early\n    ADD CONSTRAINT of_region FOREIGN KEY (region) REFERENCES public.regions(id)"
# A comment in which whole statements stand, and the end of its literal.
SLY = f"COMMENT ON TABLE public.early IS '\n{ATTACH};\n{KEY};\n\\restrict key\nit''s ü'"
# No grammar knows it.
NEWER = "ALTER TABLE public.early SET newer than the parser"


def script(*statements: str) -> str:
    return "".join(f"{one};\n" for one in statements)


def test_only_the_named_partitions_are_not_attached() -> None:
    late = ATTACH.replace("early", "late")
    wanted = frozenset({("public", "early"), ("public", "early_pkey")})
    assert without_attaching(script(SLY, ATTACH, INDEX, late, KEY, NEWER), wanted) == script(SLY, late, KEY, NEWER)


def test_only_foreign_keys_are_left_out() -> None:
    check = "ALTER TABLE public.early ADD CONSTRAINT c CHECK ((region > 0))"
    assert without_foreign_keys(script(KEY, SLY, check)) == script(SLY, check)


def test_the_guard_of_a_script_goes_and_nothing_that_looks_like_it() -> None:
    guarded = f"--\n-- PostgreSQL database dump\n--\n\n\\restrict k3y\n\n{SLY};\n\\unrestrict k3y\n"
    assert without_guard(guarded) == f"--\n-- PostgreSQL database dump\n--\n\n\n{SLY};\n"
    assert without_guard(f"{SLY};\n") == f"{SLY};\n"
