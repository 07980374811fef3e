"""Class names and templates: open_clip's lists by name, or the user's by list or file."""

import pytest

from evamm.engine.errors import ConfigError
from evamm.models.clip.prompts import fill, load_class_names, load_templates


def test_lists_of_open_clip():
    from open_clip import zero_shot_metadata as theirs

    names = load_class_names('imagenet')
    assert len(names) == 1000
    assert names == list(theirs.IMAGENET_CLASSNAMES)
    for word, count, expected in (
        ('openai', 80, theirs.OPENAI_IMAGENET_TEMPLATES),
        ('simple', 7, theirs.SIMPLE_IMAGENET_TEMPLATES),
    ):
        templates = load_templates(word)
        assert [fill(each, 'cat') for each in templates] == [each('cat') for each in expected]
        assert len(templates) == count


def test_names_agree_with_the_labels_of_mmpretrain():
    """The label of an image must point to the name of its class."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    same = 0
    for ours, theirs in zip(load_class_names('imagenet'), IMAGENET_CATEGORIES, strict=True):
        words = set(theirs.lower().replace(',', ' ').replace('-', ' ').split())
        same += bool(set(ours.lower().replace('-', ' ').split()) & words)
    assert same > 950  # a shift by one class leaves about 60


def test_own_names_and_sentences(tmp_path):
    (tmp_path / 'names.txt').write_text('red fox\n\n  arctic fox \n')
    (tmp_path / 'sentences.txt').write_text('a {}.\n{} {x} {}\n')
    assert load_class_names(tmp_path / 'names.txt') == ['red fox', 'arctic fox']
    assert load_class_names(str(tmp_path / 'names.txt')) == ['red fox', 'arctic fox']
    assert load_class_names(('a', 'b')) == ['a', 'b']
    templates = load_templates(str(tmp_path / 'sentences.txt'))
    assert [fill(each, 'fox') for each in templates] == ['a fox.', 'fox {x} fox']
    assert [fill(each, 'fox') for each in load_templates('the {}')] == ['the fox']
    assert [fill(each, 'fox') for each in load_templates([str.upper, '{}s'])] == ['FOX', 'foxs']
    assert fill(load_templates('{}')[0], 'a {odd} name {}') == 'a {odd} name {}'


@pytest.mark.parametrize(
    ('function', 'value', 'words'),
    [
        (load_class_names, 'no/such.txt', "classes='no/such.txt' is neither 'imagenet'"),
        (load_class_names, [], 'one or more names, found none'),
        (load_class_names, ['cat', ''], "found '' among them"),
        (load_class_names, ['cat', 3], 'found 3 among them'),
        (load_templates, 'opneai', "templates='opneai' is neither 'openai', 'simple'"),
        (load_templates, [], 'templates is empty'),
        (load_templates, ['a photo'], "'a photo' has no place {}"),
    ],
)
def test_mistakes_are_named(function, value, words):
    with pytest.raises(ConfigError, match=words):
        function(value)


def test_files_that_hold_nothing_or_no_text(tmp_path):
    (tmp_path / 'empty.txt').write_text('\n \n')
    with pytest.raises(ConfigError, match='empty.txt holds no line'):
        load_class_names(tmp_path / 'empty.txt')
    (tmp_path / 'image.txt').write_bytes(b'\xff\xd8\xff\xe0')
    with pytest.raises(ConfigError, match='no UTF-8 text'):
        load_class_names(tmp_path / 'image.txt')
