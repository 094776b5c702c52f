"""Every text of the pages, in English and Chinese; the English text is the key."""

from __future__ import annotations

import functools

LANGUAGES = ("en", "zh")

# Keys that are not what an English page shows.
ENGLISH = {
    "In the other language": "中文",
    "colours auto": "Auto",
    "colours dark": "Dark",
    "colours light": "Light",
    "card.html": "card",
    "data.html": "data",
}

CHINESE = {
    "In the other language": "English",
    "colours auto": "自动",
    "colours dark": "深色",
    "colours light": "浅色",
    "card.html": "模型卡",
    "data.html": "数据报告",
    "Colours: {now}; change to {next}": "配色：{now}；改为{next}",
    "Skip to the content": "跳到正文",
    "Sections": "栏目",
    "Where you are": "所在位置",
    "Models": "模型",
    "Runs": "运行",
    "Rollouts": "发布",
    "Alerts": "告警",
    "Audit log": "审计日志",
    "Log in": "登录",
    "Log out": "退出",
    "Key": "密钥",
    "With a key of the API; whoever runs the platform makes one.": "请使用 API 密钥；由平台管理员创建。",
    "This key is not known.": "该密钥不存在。",
    "Shown is": "当前显示",
    "What to do": "处理办法",
    # errors
    "There is no such page": "没有这个页面",
    "This cannot be done here": "此处不能这样做",
    "Go on from the list of models.": "请从模型列表继续。",
    "This page could not be made": "页面无法生成",
    "The console's log has the reason.": "原因见控制台日志。",
    "This page has another name": "该地址不是本页面的地址",
    "Open it as http://127.0.0.1, or with keys.": "请用 http://127.0.0.1 打开，或配置密钥。",
    "The form was sent from another site": "表单来自其他网站",
    "Open the page, and try again.": "请在本站打开页面后重试。",
    "That is too large": "内容过大",
    "At most 16 MiB are accepted.": "最多接受 16 MiB。",
    "Releases": "服务实例",
    "Release": "实例",
    "Pods ready": "就绪 Pod",
    "Address in the cluster": "集群内地址",
    "{metric} over time": "{metric} 随时间变化",
    "over time (UTC); bars: 99 % interval; dashed: in its test": "随时间（UTC）；竖线：99 % 区间；虚线：测试值",
    "Windows": "时间窗口",
    "From (UTC)": "起始（UTC）",
    "{input}: PSI over time": "{input}：PSI 随时间变化",
    "99 % interval": "99 % 区间",
    "The registry has no version of it; a release serves it all the same.": "注册表中没有其版本，但有实例在服务。",
    "API key of the endpoint": "端点的 API 密钥",
    "Passed on with this request, and kept nowhere.": "仅随本次请求转发，不会保存。",
    # what is not known
    "not measured": "未测量",
    "not known": "未知",
    "not watched yet": "尚未监测",
    "none": "无",
    "incomplete": "不完整",
    # models
    "There is no model yet. Train one:": "还没有模型。训练一个：",
    "models": "个模型",
    "answering": "个在线",
    "with drift": "个有漂移",
    "with alerts": "个有告警",
    "Model": "模型",
    "Version": "版本",
    "Endpoint": "端点",
    "Requests/s": "请求/秒",
    "Errors": "错误率",
    "one request in a hundred takes longer": "百分之一的请求耗时更长",
    "Objective, budget left": "目标与剩余预算",
    "Objective": "目标",
    "Budget left": "剩余预算",
    "Cost a day": "每日成本",
    "Cost": "成本",
    "{amount} core hours": "{amount} 核时",
    "{amount} GiB hours": "{amount} GiB·时",
    "{amount} GPU hours": "{amount} GPU 时",
    "{amount} of it idle": "其中 {amount} 闲置",
    "Quality": "质量",
    "Drift": "漂移",
    "Rollout": "发布",
    "by labels that came": "按已到标签",
    "in its test": "测试集",
    "no champion": "无现役版本",
    "challenger": "候选",
    "since its start": "自启动以来",
    "in all": "共计",
    "{count} of {all}": "{all} 个中有 {count} 个",
    "none of {all}": "{all} 个均无",
    # one model
    "Try it": "试用",
    "Champion": "现役版本",
    "Something of this model cannot be read": "该模型的部分内容无法读取",
    "Numbers of the endpoint since its start; with Prometheus they are of the last 5 minutes.": (
        "数据为端点自启动以来的累计；接入 Prometheus 后为最近 5 分钟。"
    ),
    "Traffic is not measured: neither Prometheus nor the endpoint answers.": (
        "流量未测量：Prometheus 和端点均无应答。"
    ),
    "Loop": "闭环",
    "next run at the earliest": "最早的下一次运行",
    "Measure": "指标",
    "Slice": "切片",
    "Rows": "行数",
    "all": "全部",
    "dropped": "已下降",
    "not worse": "未变差",
    "Lineage": "来源",
    "of version {version}": "版本 {version}",
    "Source": "数据源",
    "Data version": "数据版本",
    "Run": "运行",
    "Bundle": "模型包",
    "Code version": "代码版本",
    "bundle in": "模型包位于",
    "in training": "训练时",
    "now": "现在",
    "changed": "已变化",
    "same": "无变化",
    "missing": "缺失",
    "new": "新类别",
    "out of range": "越界",
    "{input}: shares in training and now": "{input}：训练时与现在的占比",
    "Nobody watches this model yet; shown is the training data.": "该模型尚未监测；显示的是训练数据。",
    "{count} more inputs": "其余 {count} 个输入",
    "No window was judged yet; shown is the training data.": "尚无已判定的窗口；显示的是训练数据。",
    "The monitor's report cannot be read; shown is the training data.": "监测报告无法读取；显示的是训练数据。",
    "Versions": "版本",
    "{metric} by version": "各版本的 {metric}",
    "bars: 95 % interval; dashed: the gate's limit": "竖线：95 % 区间；虚线：门禁阈值",
    "Role": "角色",
    "Gate": "门禁",
    "Recipe": "配方",
    "Made (UTC)": "创建时间 (UTC)",
    "Pages": "页面",
    "no bundle": "无模型包",
    "Decisions of the gate": "门禁决定",
    "Version {version}": "版本 {version}",
    "compared with {model}": "对比 {model}",
    "promoted all the same": "仍被提升",
    "Checks of version {version}": "版本 {version} 的检查",
    "Check": "检查项",
    "Measured": "实测",
    "Rule": "规则",
    "Limit": "阈值",
    "Against": "对照",
    "Result": "结果",
    "Elsewhere": "其他工具",
    # runs
    "There is no run yet. Start one:": "还没有运行。启动一个：",
    "The latest {count} are shown.": "显示最近 {count} 个。",
    "State": "状态",
    "Task": "任务",
    "Started (UTC)": "开始时间 (UTC)",
    "Ended (UTC)": "结束时间 (UTC)",
    "Time": "用时",
    "Steps": "步骤",
    "Step": "步骤",
    "Graph of the steps": "步骤图",
    "Share": "占比",
    "Tries": "次数",
    "What it gave": "产出",
    "{step}: share of the time": "{step}：用时占比",
    "What was asked": "运行参数",
    "By": "发起人",
    # rollouts
    "No version shares its traffic with another, and none has.": "目前没有、此前也没有版本分流。",
    "since": "始于",
    "Share of the traffic: {version}": "流量占比：{version}",
    "What happened": "经过",
    # alerts
    "Alerts are rules of Prometheus, and none is asked. Name it:": "告警来自 Prometheus，尚未接入。请指定：",
    "No alert is pending or firing.": "没有待定或触发的告警。",
    "Alert": "告警",
    "Severity": "级别",
    "Since (UTC)": "始于 (UTC)",
    "What it says": "内容",
    "Runbook": "处理手册",
    "Open": "打开",
    # audit log
    "Nothing was noted yet. Promotions, rollbacks and deployments are.": "尚无记录。提升、回滚和部署会记录在此。",
    "The log is not as it was written": "日志已被改动",
    "The chain of hashes is whole: {count} entries.": "哈希链完整：{count} 条记录。",
    "No.": "序号",
    "When (UTC)": "时间 (UTC)",
    "Who": "操作者",
    "Action": "操作",
    "What": "对象",
    "Why": "原因",
    "Evidence": "依据",
    "Newer": "较新",
    "Older": "较早",
    "Page {number} of {last}": "第 {number} 页，共 {last} 页",
    # try a model
    "Try {model}": "试用 {model}",
    "Answer": "回答",
    "Class": "类别",
    "Probability": "概率",
    "Reasons": "理由",
    "Input": "输入",
    "Value": "值",
    "Contribution": "贡献",
    "Flags": "标记",
    "version {version}, in {time}": "版本 {version}，用时 {time}",
    "{count} fields have to be corrected.": "有 {count} 个字段需要更正。",
    "By entity: features are looked up": "按实体：自动查询特征",
    "All inputs by hand": "手动填写全部输入",
    "key": "键",
    "yes": "是",
    "no": "否",
    "from {low} to {high}": "从 {low} 到 {high}",
    "ISO 8601; empty means now": "ISO 8601；留空表示现在",
    "Write a number.": "请填写数字。",
    "Write a whole number.": "请填写整数。",
    "Ask the model": "提问",
    "with reasons": "附理由",
    "The console asks {url}; the request is logged there as any other.": "控制台将请求 {url}；该请求会照常记录。",
    "No address of its endpoint is known.": "未知其端点地址。",
}

# Words that documents have: what is not here is shown as it stands there.
STATES = {
    "up": ("up", "在线"),
    "down": ("down", "离线"),
    "passed": ("passed", "通过"),
    "refused": ("refused", "拒绝"),
    "succeeded": ("succeeded", "成功"),
    "failed": ("failed", "失败"),
    "dead": ("dead", "中断"),
    "running": ("running", "进行中"),
    "cancelled": ("cancelled", "已取消"),
    "waiting": ("waiting", "等待"),
    "finished": ("finished", "完成"),
    "cached": ("from the cache", "来自缓存"),
    "skipped": ("skipped", "跳过"),
    "watching": ("watching", "监视中"),
    "asking": ("waits for approval", "等待批准"),
    "stopped": ("stopped", "已停止"),
    "starting": ("starting", "启动中"),
    "settling": ("settling", "观察中"),
    "paused": ("paused", "已暂停"),
    "promoted": ("promoted", "已提升"),
    "rolled_back": ("rolled back", "已回滚"),
    "aborted": ("aborted", "已中止"),
    "pending": ("pending", "待定"),
    "firing": ("firing", "触发"),
    "critical": ("critical", "严重"),
    "warning": ("warning", "警告"),
    "champion": ("champion", "现役"),
    "challenger": ("challenger", "候选"),
    "canary": ("canary", "金丝雀"),
    "shadow": ("shadow", "影子"),
    "direct": ("direct", "直接"),
    "at least": ("at least", "至少"),
    "at most": ("at most", "至多"),
    "fixed": ("fixed", "固定值"),
    "promote": ("promote", "提升"),
    "pause": ("pause", "暂停"),
    "resume": ("resume", "继续"),
    "abort": ("abort", "中止"),
    "rollback": ("roll back", "回滚"),
    "deploy": ("deploy", "部署"),
}


def said(language: str, text: str, **values: object) -> str:
    """A text in a language, with its values put in.

    Raises:
        KeyError: the catalogue does not have it.
    """
    chinese = CHINESE[text]
    form = chinese if language == "zh" else ENGLISH.get(text, text)
    return form.format(**values) if values else form


@functools.cache
def state_words(language: str) -> dict[str, str]:
    """The words of documents in a language."""
    return {word: texts[LANGUAGES.index(language)] for word, texts in STATES.items()}


def chosen_language(accepted: str) -> str:
    """The language of an ``Accept-Language`` header that we have and that is liked best; English for none."""
    best, weight = LANGUAGES[0], 0.0
    for part in accepted.lower().split(","):
        name, _, rest = part.strip().partition(";")
        try:
            liked = float(rest.strip().removeprefix("q=")) if rest else 1.0
        except ValueError:
            continue
        language = name.partition("-")[0]
        if language in LANGUAGES and liked > weight:
            best, weight = language, liked
    return best
