"""Charts: their classes of sizes, and that every document is in a column."""

import re
from collections import Counter

from pipeline.report.charts import Column, cluster_chart, columns_chart, half_octave, length_chart
from pipeline.report.report_data import Facts


def test_columns_of_lengths_have_two_an_octave() -> None:
    assert [half_octave(half) for half in range(-1, 11)] == [0, 1, 2, 2, 3, 4, 6, 8, 12, 16, 23, 32]


def test_the_length_chart_says_how_many_documents_each_column_holds() -> None:
    facts = Facts("x", 1, words_kept=Counter({3: 5}), words_dropped=Counter({-1: 2, 3: 1}))
    labels = re.findall("<g><title>(.*?)</title>", length_chart(facts))
    assert labels == [
        "0 to 0 words: 0 kept, 2 dropped",
        "1 to 1 words: 0 kept, 0 dropped",
        "2 to 2 words: 0 kept, 0 dropped",
        "3 to 3 words: 5 kept, 1 dropped",
    ]


def test_clusters_of_one_are_no_clusters_and_large_ones_share_a_column() -> None:
    chart = cluster_chart(Facts("x", 1, cluster_sizes=Counter({1: 90, 2: 4, 5: 1, 8: 2, 9: 7})))
    assert re.findall(r"<title>(\d.*?)</title>", chart) == [
        "2 documents: 4 clusters",
        "3 documents: 0 clusters",
        "4 documents: 0 clusters",
        "5\u20138 documents: 3 clusters",
        "9\u201316 documents: 7 clusters",
    ]
    assert "alike" in cluster_chart(Facts("x", 1, cluster_sizes=Counter({1: 90})))


def test_the_tallest_column_fits_and_small_ones_stay_visible() -> None:
    chart = columns_chart("n", "title", "axis", [Column("a", "A", [("keep", 1)]), Column("b", "B", [("keep", 99_999)])])
    tall = [float(height) for height in re.findall(r'class="keep"[^>]*height="([\d.]+)"', chart)]
    assert tall[0] == 1.0
    assert max(tall) < 230
