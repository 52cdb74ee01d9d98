"""Style sheet and fixed texts of the report."""

CSS = """
:root { --ink: #1b1f24; --soft: #59636e; --line: #e3e6ea; --wash: #f6f8fa; --mark: #0b5cad;
        --best: #e6f1fb; --bad: #9a3412; --badwash: #fff4ed; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.55; font-size: 16px;
       font-family: -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans",
       sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 48px 28px 80px; }
header { border-bottom: 3px solid var(--ink); padding-bottom: 22px; margin-bottom: 30px; }
.kicker { color: var(--mark); font-weight: 600; letter-spacing: .04em; font-size: 14px; margin: 0; }
h1 { font-size: 34px; line-height: 1.18; letter-spacing: -.015em; margin: 6px 0 10px; }
h2 { font-size: 23px; letter-spacing: -.01em; margin: 54px 0 8px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
sub { font-size: .72em; line-height: 0; vertical-align: -.25em; }
p { max-width: 74ch; margin: 8px 0 14px; }
.lede { font-size: 18px; color: var(--soft); max-width: 70ch; margin: 0; }
nav { margin: 0 0 26px; font-size: 14.5px; display: flex; flex-wrap: wrap; gap: 4px 20px; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px;
         border: 1px solid var(--line); border-radius: 8px; overflow: hidden; margin: 0 0 26px; }
.facts div { padding: 13px 16px; outline: 1px solid var(--line); }
.facts b { display: block; font-size: 21px; letter-spacing: -.01em; font-weight: 650;
           font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: 13.5px; }
ul.findings { padding-left: 20px; max-width: 78ch; } ul.findings li { margin: 5px 0; }
.scroll { overflow-x: auto; margin: 6px 0 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
        font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--soft); padding: 7px 9px; white-space: nowrap;
     border-bottom: 1.5px solid var(--ink); }
td { text-align: right; padding: 7px 9px; border-bottom: 1px solid var(--line);
     white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
td:first-child { font-weight: 600; }
td.best { background: var(--best); font-weight: 650; }
tr.limit td { color: var(--soft); font-weight: 400; font-style: italic; border-bottom: none; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
.note { color: var(--soft); font-size: 14px; }
.failed { background: var(--badwash); border-left: 4px solid var(--bad); padding: 10px 16px;
          border-radius: 0 6px 6px 0; margin: 10px 0; overflow-wrap: anywhere; }
.failed b { color: var(--bad); }
figure { margin: 16px 0 26px; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 14px; max-width: 80ch; margin-top: 6px; }
dl { display: grid; grid-template-columns: minmax(130px, max-content) 1fr; gap: 7px 22px;
     max-width: 90ch; font-size: 15px; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 60px; padding-top: 14px; border-top: 1px solid var(--line);
         color: var(--soft); font-size: 13.5px; }
@media (max-width: 640px) { main { padding: 26px 16px 60px; } h1 { font-size: 27px; }
  figure { overflow-x: auto; } figure img { min-width: 620px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 10px; } }
@media print { main { max-width: none; padding: 0; } nav { display: none; }
  figure, table, .facts { break-inside: avoid; } }
"""

GLOSSARY = (
    (
        "error",
        "Predicted minus true label. All errors are in the units of the label.",
    ),
    (
        "bias",
        "Median error.",
    ),
    (
        "MAE, STD, RMSE",
        "Mean absolute error; standard deviation (bias taken out); root mean square (bias "
        "left in). For Gaussian errors MAE = 0.80 STD.",
    ),
    (
        "MAD, robust σ",
        "Median absolute deviation from the median, and 1.4826 times it: the standard "
        "deviation of the Gaussian core, blind to outliers. RMSE far above robust σ means "
        "heavy tails.",
    ),
    (
        "in 1σ, in 2σ",
        "Share of stars whose true label lies within one (two) of the error bars the method "
        "gave. Honest Gaussian errors: 68 % and 95 %. Less: over-confident. More: too wide.",
    ),
    (
        "formal 1σ",
        "The same for a forward model's formal errors alone (photon noise and pixel scatter), "
        "without the model's own error in label space. It shows why formal errors are not "
        "enough.",
    ),
    (
        "NLL, CRPS",
        "Mean negative log density of the true label, and continuous ranked probability "
        "score: both reward errors that are small and honestly stated. Smaller is better.",
    ),
    (
        "slope",
        "Least-squares slope of predicted against true labels. Below 1, the range of the "
        "labels is compressed towards the mean of the training set.",
    ),
    (
        "η",
        "Efficiency: 1 / κ², with κ the robust standard deviation of errors in units of the "
        "star's own Cramér-Rao bound; 68 % bootstrap interval over stars in brackets. 1 is "
        "the physical limit: no unbiased method does better. A method that compresses the "
        "labels, or a bound from imperfect gradients, can exceed it.",
    ),
    (
        "joint NLL, joint η",
        "The same with all labels at once, covariances included. Joint η uses the mean "
        "square, so a single catastrophic star counts.",
    ),
)
