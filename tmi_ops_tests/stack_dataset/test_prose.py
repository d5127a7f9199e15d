from __future__ import annotations

import re
import zlib

import pytest

from tmi_ops.stack.dataset.assistant import EMBEDDING_DIMENSIONS, vector
from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.prose import prose_of
from tmi_ops.stack.dataset.vocabulary import SENTENCES


@pytest.mark.parametrize("register", ["threat", "mitigation", "system", "review"])
def test_texts_compress_like_prose_neither_like_noise_nor_like_one_sentence_again_and_again(register: str) -> None:
    chance = Chance(1)
    texts = "\n".join(prose_of(1).sentences(chance, register, 4) for _ in range(2000)).encode()
    assert 3 < len(texts) / len(zlib.compress(texts)) < 7


@pytest.mark.parametrize("register", list(SENTENCES))
def test_sentences_are_whole_no_slot_of_the_grammar_is_left_and_they_name_the_component(register: str) -> None:
    chance = Chance(2)
    text = "\n".join(prose_of(1).sentences(chance, register, 1, "Ledger API") for _ in range(500))
    assert not re.search(r"[{}\[\]|§]|  ", text)
    assert not re.search(r"^[a-z]|[^.?]$", text, re.MULTILINE)
    assert "Ledger API" in text


def test_embeddings_are_vectors_of_about_length_one_that_hardly_compress() -> None:
    import array

    content = vector(Chance(3))
    components = array.array("f", content)
    assert len(components) == EMBEDDING_DIMENSIONS
    assert 0.7 < sum(component**2 for component in components) ** 0.5 < 1.2
    assert len(zlib.compress(content)) > 0.75 * len(content)
