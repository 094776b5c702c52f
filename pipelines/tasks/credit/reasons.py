"""What an applicant is told of a reason, by input: principal reasons of a refusal, in English and Chinese.

The texts name what was used. They are the same for every model of the task, so a retrained one gives the same text for
the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping

_MONTHS = range(1, 7)

TEXTS: Mapping[str, Mapping[str, str]] = {
    "income": {"en": "Income is too low for the credit asked for", "zh": "收入相对于所申请的贷款偏低"},
    "amount": {"en": "Amount of credit asked for", "zh": "申请的贷款金额"},
    "term_months": {"en": "Term of the credit is too long", "zh": "贷款期限过长"},
    "payment_share": {"en": "Monthly payment is too high for the income", "zh": "每月还款额占收入的比例过高"},
    "debts": {"en": "Outstanding debts are too high", "zh": "未偿还债务过高"},
    "late_payments": {"en": "Payments were late in the past", "zh": "过去有逾期还款记录"},
    "credit_years": {"en": "History of credit is too short", "zh": "信用历史过短"},
    "existing_credits": {"en": "Number of existing credits", "zh": "现有贷款的数量"},
    "employment_years": {"en": "Length of employment is too short", "zh": "就业时间过短"},
    "checking": {"en": "State of the current account", "zh": "往来账户的状况"},
    "savings": {"en": "Savings are too low or not known", "zh": "储蓄不足或无法核实"},
    "purpose": {"en": "Purpose of the credit", "zh": "贷款用途"},
    "housing": {"en": "Housing situation", "zh": "住房状况"},
    "history": {"en": "Record of earlier credits", "zh": "以往贷款的还款记录"},
    "employment": {"en": "Length of employment", "zh": "就业时间"},
    "installment_rate": {"en": "Installments are too high for the income", "zh": "分期还款额占收入的比例过高"},
    "other_debtors": {"en": "Guarantor or co-applicant", "zh": "担保人或共同申请人"},
    "residence_years": {"en": "Length of residence", "zh": "居住时间"},
    "property": {"en": "Property that could secure the credit", "zh": "可作抵押的财产"},
    "other_installments": {"en": "Installments owed to others", "zh": "在其他机构的分期付款"},
    "job": {"en": "Kind of employment", "zh": "职业类型"},
    "dependants": {"en": "Number of people to provide for", "zh": "需抚养的人数"},
    "telephone": {"en": "No telephone registered", "zh": "未登记电话"},
    **{
        f"pay_status_{month}": {"en": f"Payment was late {month} months ago", "zh": f"{month}个月前还款逾期"}
        for month in _MONTHS
    },
    **{f"bill_{month}": {"en": f"Bill of {month} months ago", "zh": f"{month}个月前的账单金额"} for month in _MONTHS},
    **{
        f"paid_{month}": {"en": f"Too little was paid {month} months ago", "zh": f"{month}个月前还款过少"}
        for month in _MONTHS
    },
}
