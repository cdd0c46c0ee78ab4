from cmbench.rundir import evaluations
from cmbench.rundir.layout import RunDir

QUESTION = {"metric": "recall", "n": 5, "steps": 1}
ANSWER = {"value": 0.5, "spread": 0.1, "floor": None}


def test_an_answer_is_found_by_its_question_in_any_order_of_its_keys(tmp_path):
    run = RunDir(tmp_path)
    assert evaluations.read(run, QUESTION) is None
    evaluations.write(run, QUESTION, ANSWER)
    assert evaluations.read(run, dict(reversed(QUESTION.items()))) == ANSWER
    assert evaluations.read(run, {**QUESTION, "n": 6}) is None


def test_a_file_that_holds_another_question_is_no_answer(tmp_path):
    run = RunDir(tmp_path)
    evaluations.write(run, QUESTION, ANSWER)
    (path,) = run.evaluations.iterdir()
    path.write_bytes(path.read_bytes().replace(b'"n": 5', b'"n": 6'))
    assert evaluations.read(run, QUESTION) is None
