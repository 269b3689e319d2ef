#!/usr/bin/env python3
"""The runner judged with cases whose ends are known, and the files of cases read without their frameworks. No GPU."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import suite  # noqa: E402
import record_faults  # noqa: E402
from runner import catalogue, compare, programs  # noqa: E402
from runner.report import Report  # noqa: E402
from runner.play import Result  # noqa: E402

# What each fake case has to end with, and a part of the reason.
ENDS = {
    "judged/same": ("passed", ""),
    "judged/other_text": ("failed", "value 'vgpu', native value 'native'"),
    "judged/near": ("passed", ""),
    "judged/not_near_enough": ("failed", "error 5.00e-05, allowed 1e-06"),
    "judged/nothing": ("failed", "no outputs"),
    "judged/raises_through_vgpu": ("failed", "ValueError: only here"),
    "judged/raises_on_both": ("skipped", "native: ValueError: everywhere"),
    "judged/dies_through_vgpu": ("failed", "ended with SIGSEGV"),
    "judged/hangs_through_vgpu": ("failed", "no answer within 2 s"),
    "judged/after_the_others": ("passed", ""),
    "judged/cannot_be_tried": ("skipped", "no such thing here"),
    "judged/skips_through_vgpu_alone": ("failed", "only here"),
    "judged/of_its_own": ("passed", ""),
    "judged/with_an_environment": ("passed", ""),
    "judged/ends_badly_through_vgpu": ("failed", "ends with exit code 3"),
    "judged/ends_badly_on_both": ("passed", ""),
    "judged/half_as_fast": ("passed", ""),
    "judged/not_fast_enough": ("passed", ""),
    "judged/once_in_a_process": ("passed", ""),
    "judged/fast_but_wrong": ("failed", "value 'True', native value 'False'"),
    "judged/few": ("passed", ""),
    "judged/too_many": ("passed", ""),
    "judged/far_too_many": ("failed", "2 things, at most 1"),
    "missing/one": ("skipped", "no_such_framework cannot be imported"),
    "missing/other": ("skipped", "no_such_framework cannot be imported"),
    "broken/one": ("failed", "OSError: no library"),
    "broken/other": ("failed", "OSError: no library"),
}
MET = {"half_as_fast": True, "not_fast_enough": False, "once_in_a_process": True, "few": True, "too_many": False}


def run(*words):
    """A run of the suite: its exit code, what it printed, its results."""
    with tempfile.TemporaryDirectory() as folder:
        results, said = Path(folder) / "results", io.StringIO()
        line = ["--vgpu", "socket,/nowhere,0", "--repeats", "2", "--json", str(results), *words]
        with contextlib.redirect_stdout(said):
            code = suite.main(line)
        about, *rows = [json.loads(line) for line in results.read_text().splitlines()]
    return code, said.getvalue(), {row["label"]: row for row in rows}


class TheRunner(unittest.TestCase):
    """A run of the fake cases."""

    @classmethod
    def setUpClass(cls):
        cls.code, cls.said, cls.rows = run("--cases", str(HERE / "fake"), "--kinds", "case,speed,figure")

    def test_each_case_ends_as_it_has_to(self):
        for label, (status, why) in ENDS.items():
            with self.subTest(label):
                row = self.rows[label]
                self.assertEqual(row["status"], status, row)
                self.assertIn(why, row.get("why", ""))

    def test_no_case_is_forgotten_and_none_is_told_twice(self):
        self.assertEqual(set(self.rows), set(ENDS))
        counts = [sum(status == one for status, _ in ENDS.values()) for one in ("passed", "failed", "skipped")]
        self.assertEqual(self.said.rstrip().splitlines()[-1], "{} passed, {} failed, {} skipped".format(*counts))
        self.assertEqual(self.code, 1)

    def test_what_is_near_or_the_same_says_so(self):
        self.assertEqual(self.rows["judged/same"]["equal"], "bitwise")
        self.assertEqual(self.rows["judged/near"]["equal"], "5.0e-05")

    def test_targets_are_met_or_missed(self):
        for name, met in MET.items():
            self.assertEqual(self.rows[f"judged/{name}"]["met"], met, name)
        ratio = self.rows["judged/half_as_fast"]["ratio"]
        self.assertTrue(0.2 < ratio < 0.8, ratio)
        self.assertIn("not_fast_enough: ", self.said.split("targets that were missed")[1])

    def test_the_table_has_every_case(self):
        for label in ENDS:
            self.assertIn(label, self.said)


class ARun(unittest.TestCase):
    """What a run may be asked."""

    def test_a_chosen_case_that_passes_is_a_success(self):
        code, said, rows = run("--cases", str(HERE / "fake"), "--only", "judged/same,judged/few", "--brief")
        self.assertEqual((code, len(rows)), (0, 2), said)

    def test_nothing_played_is_no_success(self):
        code, said, _ = run("--cases", str(HERE / "fake"), "--only", "no such case")
        self.assertEqual((code, said.rstrip().splitlines()[-1]), (1, "0 passed, 0 failed, 0 skipped"))

    def test_what_is_left_when_the_time_is_up_is_skipped(self):
        _, _, rows = run("--cases", str(HERE / "fake"), "--only", "judged/", "--time-limit", "0")
        self.assertEqual({(row["status"], row["why"]) for row in rows.values()}, {("skipped", "the time limit")})

    def test_lines_for_xtask_bench_are_flat(self):
        words = ["--cases", str(HERE / "fake"), "--only", "half_as_fast,few", "--bench-lines", "--kinds", "speed,figure"]
        with contextlib.redirect_stderr(io.StringIO()):
            code, said, _ = run(*words)
        lines = [json.loads(line) for line in said.splitlines()]
        self.assertEqual([line["name"] for line in lines], ["judged/half_as_fast", "judged/few"])
        fast, few = lines
        self.assertEqual((fast["unit"], fast["what"], few["value"], few["beside"], few["target"]), ("ms", "native", 2, None, 3))
        self.assertAlmostEqual(fast["target"], 20 * fast["beside"], delta=0.2)
        self.assertEqual(code, 0)


class TheFiles(unittest.TestCase):
    """What the repository holds can be read and compiled."""

    def test_every_file_compiles(self):
        for file in HERE.rglob("*.py"):
            compile(file.read_text(), str(file), "exec")

    def test_every_file_of_cases_has_some_and_their_options_are_known(self):
        files = sorted((HERE / "cases").glob("*.py"))
        self.assertGreater(len(files), 10)
        for file in files:
            self.assertTrue(catalogue.read(file), file)

    def test_a_wrong_option_is_refused(self):
        for text in ("@case(tolerence=1)", "@case(1)", "@case(limit_s=f())", "@speed()"):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "wrong.py"
                file.write_text(f"{text}\ndef name():\n    pass\n")
                with self.assertRaises(catalogue.Broken, msg=text):
                    catalogue.read(file)

    def test_programs_that_are_named_are_there(self):
        sources = {file.stem for folder in programs.FOLDERS for file in folder.glob("*.c*")}
        named = {*programs.TABLES, *programs.LIMITS_S, *programs.NOT_PLAYED, *programs.ARGUMENTS, *programs.SAYS_OTHERWISE, *programs.VGPU_ALONE, *programs.MEASURES}
        self.assertEqual(named - sources, set())


class Comparing(unittest.TestCase):
    """The judge, by itself."""

    @staticmethod
    def leaf(sample, digest="a", kind="float32 [2]"):
        norm = None if sample is None else sum(x * x for x in sample) ** 0.5
        return {"name": "x", "type": kind, "digest": digest, "sample": sample, "norm": norm}

    def test_one_bit_is_too_much_without_a_tolerance(self):
        native, vgpu = [self.leaf([1.0, 2.0])], [self.leaf([1.0, 2.0], "b")]
        with self.assertRaises(compare.Differs):
            compare.same(native, vgpu, 0.0)
        self.assertEqual(compare.same(native, vgpu, 1e-9), "0.0e+00")

    def test_what_is_no_number_is_never_near(self):
        nan, inf = float("nan"), float("inf")
        for value in (nan, inf, -inf):
            with self.assertRaises(compare.Differs):
                compare.same([self.leaf([1.0, 2.0])], [self.leaf([1.0, value], "b")], 0.5)
        both = compare.same([self.leaf([1.0, nan])], [self.leaf([1.0, nan], "b")], 0.5)
        self.assertEqual(both, "0.0e+00")

    def test_another_kind_or_name_or_whole_is_another_output(self):
        one = self.leaf([1.0, 2.0])
        others = [
            [self.leaf([1.0, 2.0], "b", "float16 [2]")],
            [dict(one, name="y")],
            [one, one],
            [dict(one, digest="b", norm=100.0)],
        ]
        for other in others:
            with self.assertRaises(compare.Differs):
                compare.same([one], other, 0.5)


class Measuring(unittest.TestCase):
    """Programs that print figures."""

    def test_figures_are_compared_and_a_missing_one_is_a_failure(self):
        program = programs.Program("driver_speed", None)
        seen = ({"a": [{"value": 2.0}, {"value": 3.0}]}, {"a": [{"value": 1.0}], "b": [{"error": "cuX: 801"}]})
        fast = programs._figure(program, "a", {"target": 1.3}, seen)
        self.assertEqual((fast.ratio, fast.met, fast.status), (2.5, True, "passed"))
        seen[0]["b"] = [{"value": 1.0}]
        self.assertEqual(programs._figure(program, "b", {}, seen).why, "vgpu: cuX: 801")
        self.assertEqual(programs._figure(program, "c", {}, seen).status, "skipped")

    def test_the_first_other_line_is_shown(self):
        other = programs._other_line((0, "a\nb\n", ""), (0, "a\nc\n", ""))
        self.assertEqual(other, "line 2 of its output: 'c', native 'b'")
        self.assertIn("nothing", programs._other_line((0, "a\n", "x\n"), (0, "a\n", "")))
        self.assertIsNone(programs._other_line((0, "a", ""), (0, "a", "")))

    def test_what_a_driver_says_goes_into_the_table(self):
        table = "# Head.\n= why: so.\n= unrecorded: not yet.\na: one ? | vgpu 1 unrecorded\na: two ? | vgpu 1 unrecorded\na: three 1 | vgpu 801 why\na: four 0\n"
        said = "a: one 1\na: two 400\na: three crashes\nfaults: ok, 1 areas\n"
        recorded, without = record_faults.record(table, said)
        self.assertEqual(recorded, "# Head.\n= unrecorded: not yet.\na: one 1\na: two 400 | vgpu 1 unrecorded\na: three crashes\na: four 0\n")
        self.assertEqual(without, ["a: two 400 | vgpu 1 unrecorded"])

    def test_a_table_lets_differ_what_it_names_and_a_crash_has_to_be_an_error(self):
        table = "= why: so.\na: one 0\na: two 1 | vgpu 801 why\na: three ? | vgpu 5 why\na: four crashes\n"
        native = "a: one 0\na: two 1\na: three 7\na: four crashes\n"
        said = "a: one 0\na: two 801\na: three 7\na: four 400\n"
        self.assertIsNone(programs._beside_table(table, native, said))
        for right, wrong in [("one 0", "one 1"), ("two 801", "two 1"), ("three 7", "three 5"), ("four 400", "four 0"), ("a: one 0\n", "")]:
            self.assertIn("1 lines", programs._beside_table(table, native, said.replace(right, wrong)))


class Telling(unittest.TestCase):
    """The report."""

    def test_skips_are_told_by_reason(self):
        report = Report(lambda text: None, verbose=False)
        for name in "abc":
            report.add(Result(f"file/{name}", "case", "skipped", "no GPU"))
        self.assertEqual(report.last_lines(), "skipped: file/a, file/b, file/c: no GPU\n0 passed, 0 failed, 3 skipped")

    def test_failures_are_told_one_by_one_or_in_brief_by_reason(self):
        said = []
        for verbose in (True, False):
            report = Report(lambda text: None, verbose)
            for name in "abcdefgh":
                report.add(Result(f"file/{name}", "case", "failed", "801"))
            said.append(report.last_lines().splitlines())
        self.assertEqual((len(said[0]), said[0][0]), (9, "failed: file/a: 801"))
        self.assertEqual(said[1][0], "failed: file/a, file/b, file/c, file/d, file/e and 3 more: 801")


if __name__ == "__main__":
    unittest.main()
