# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ask an endpoint, and why it answers so
#
# `FAIRLEAD_ENDPOINT` names one that runs already, such as `http://credit.fairlead:3000` in a cluster. Without it the
# champion is served here, and where there is none it is trained first.

# %%
import os

import fairlead

url, service = os.environ.get("FAIRLEAD_ENDPOINT", ""), None
if not url:
    if not any(model.name == "credit" for model in fairlead.models()):
        fairlead.run("credit")
    service = fairlead.serve("credit").start()
    url = service.url
service or url

# %% [markdown]
# ## One application

# %%
application = {
    "income": 1900,
    "amount": 7500,
    "term_months": 36,
    "payment_share": 0.13,
    "debts": 2500,
    "late_payments": 1,
    "credit_years": 6,
    "existing_credits": 1,
    "employment_years": 3,
    "checking": "low",
    "savings": "low",
    "purpose": "car",
    "housing": "rent",
}
answer = fairlead.predict("credit", application, url=url, explain=True)
answer

# %%
answer.reasons()

# %% [markdown]
# ## What if
#
# The same application with other debts. Rows may be a list of dictionaries, as here, or a data frame.

# %%
debts = [0, 1000, 2500, 5000, 10_000, 20_000]
answers = fairlead.predict("credit", [{**application, "debts": amount} for amount in debts], url=url)
answers.frame().assign(debts=debts).set_index("debts")[["label", "probability"]]

# %% [markdown]
# ## A row that does not fit
#
# The error names the row and the field. Left alone, it stops the notebook with these lines and no traceback.

# %%
try:
    fairlead.predict("credit", {**application, "income": "much"}, url=url)
except fairlead.PlatformError as error:
    print(error)

# %%
if service:
    service.stop()
