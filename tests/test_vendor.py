"""The scripts and fonts of others are those that were reviewed, each with its licence."""

import dataclasses
import json

import vendor


def test_vendored_files_have_the_checksums_that_are_written_down():
    assert vendor.sums() == json.loads(vendor.SUMS.read_text("utf8"))


def test_every_vendored_package_brings_its_licence_and_is_listed():
    table = (vendor.SITE / "LICENCES.md").read_text("utf8")
    assert table == vendor.table()
    for package in vendor.PACKAGES:
        assert (package.target / "LICENSE").stat().st_size > 1000
        assert f"| {package.name} | {package.version} | {package.licence} |" in table


def test_a_changed_file_is_noticed(monkeypatch, tmp_path):
    copy = tmp_path / "script.js"
    copy.write_text("reviewed", "utf8")
    package = dataclasses.replace(vendor.PACKAGES[0], target=tmp_path)
    monkeypatch.setattr(vendor, "PACKAGES", (package,))
    monkeypatch.setattr(vendor, "ROOT", tmp_path)
    before = vendor.sums()
    copy.write_text("changed", "utf8")
    assert list(before) == list(vendor.sums()) and before != vendor.sums()
