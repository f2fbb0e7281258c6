package web

import "github.com/scrip-codes/scrip/internal/refusal"

// Messages is the words of every refusal. The Chinese of those that the
// redemption API documents is quoted from there: clients compare it.
func Messages() map[refusal.Code]Words {
	return map[refusal.Code]Words{
		refusal.RedemptionNotFound: {
			"兑换码不存在",
			"引き換えコードが存在しません",
			"There is no such redemption code.",
		},
		refusal.RedemptionKeyMissing: {
			"未提供兑换码",
			"引き換えコードを入力してください",
			"No redemption code was given.",
		},
		refusal.RedemptionUnknown: {
			"无效的兑换码",
			"引き換えコードが正しくありません。入力内容をご確認ください",
			"This redemption code is not valid. Please check it for typing errors.",
		},
		refusal.RedemptionUsed: {
			"该兑换码已被使用",
			"この引き換えコードはすでに使用されています",
			"This redemption code has already been used.",
		},
		refusal.RedemptionUsedByYou: {
			"该兑换码已被使用",
			"この引き換えコードはすでにご利用済みで、残高に反映されています",
			"You have already used this redemption code; its credit is in your balance.",
		},
		refusal.RedemptionDisabled: {
			"该兑换码已被禁用",
			"この引き換えコードは無効になっています",
			"This redemption code has been disabled.",
		},
		refusal.RedemptionExpired: {
			"该兑换码已过期",
			"この引き換えコードは有効期限が切れています",
			"This redemption code has expired.",
		},
		refusal.RedemptionNameLength: {
			"兑换码名称长度必须在1-20之间",
			"引き換えコードの名前は 1～20 文字にしてください",
			"The name of a redemption code must have 1 to 20 characters.",
		},
		refusal.RedemptionNameCharacters: {
			"兑换码名称不能包含控制字符或无效字符",
			"引き換えコードの名前に制御文字や不正な文字は使えません",
			"The name of a redemption code must not contain control characters or broken text.",
		},
		refusal.RedemptionCountTooSmall: {
			"兑换码个数必须大于0",
			"引き換えコードの個数は 1 以上にしてください",
			"The number of redemption codes must be greater than 0.",
		},
		refusal.RedemptionCountTooLarge: {
			"一次兑换码批量生成的个数不能大于 100",
			"一度に作成できる引き換えコードは 100 個までです",
			"No more than 100 redemption codes can be made at once.",
		},
		refusal.RedemptionQuota: {
			"兑换码额度必须是大于 0 的整数",
			"引き換えコードの付与額は 1 以上の整数にしてください",
			"The quota of a redemption code must be a whole number greater than 0.",
		},
		refusal.RedemptionExpiry: {
			"过期时间不能早于当前时间",
			"有効期限に過去の日時は指定できません",
			"The expiry time must not be in the past.",
		},
		refusal.RedemptionExpiryRange: {
			"过期时间超出范围：请使用以秒（而非毫秒）为单位的 Unix 时间戳，且不晚于 9999 年",
			"有効期限が範囲外です。ミリ秒ではなく秒単位の Unix 時刻で、西暦 9999 年までを指定してください",
			"The expiry time is out of range: give Unix seconds, not milliseconds, up to the year 9999.",
		},
		refusal.RedemptionStatus: {
			"兑换码状态只能设为 1（启用）或 2（禁用）",
			"引き換えコードの状態に指定できるのは 1（有効）か 2（無効）だけです",
			"The status of a redemption code can only be set to 1 (enabled) or 2 (disabled).",
		},
		refusal.RedemptionUsedUnchanging: {
			"兑换码已被使用，不能再修改其状态、额度或过期时间",
			"使用済みの引き換えコードの状態・付与額・有効期限は変更できません",
			"A used redemption code keeps its status, quota and expiry time; only its name can be changed.",
		},
		refusal.RedemptionJobNotFound: {
			"没有这项任务",
			"この処理は存在しません",
			"There is no such job.",
		},
		refusal.RedemptionJobTooLarge: {
			"一次最多生成 10,000 个兑换码",
			"一度に作成できる引き換えコードは 10,000 個までです",
			"No more than 10,000 redemption codes can be made under one name at a time.",
		},

		refusal.MerchantNotFound: {
			"商户不存在",
			"事業者が存在しません",
			"There is no such merchant.",
		},
		refusal.MerchantName: {
			"商户名称须为 1 到 64 个字符，且不能包含控制字符",
			"事業者の名前は制御文字を含まない 1～64 文字にしてください",
			"The name of a merchant must have 1 to 64 characters, without control characters.",
		},
		refusal.MerchantAppKey: {
			"app_key 须为 1 到 128 个字符，且不能包含控制字符",
			"app_key は制御文字を含まない 1～128 文字にしてください",
			"An app_key must have 1 to 128 characters, without control characters.",
		},
		refusal.MerchantPayload: {
			"payload 只能是 json 或 base64",
			"payload には json か base64 を指定してください",
			"payload must be json or base64.",
		},
		refusal.MerchantSignature: {
			"signature 只能是 raw 或 percent-encoded",
			"signature には raw か percent-encoded を指定してください",
			"signature must be raw or percent-encoded.",
		},
		refusal.MerchantExpiryUnit: {
			"expiry_unit 只能是 ms（毫秒）或 s（秒）",
			"expiry_unit には ms（ミリ秒）か s（秒）を指定してください",
			"expiry_unit must be ms (milliseconds) or s (seconds).",
		},

		refusal.MachineNotFound: {
			"售货机不存在",
			"自販機が存在しません",
			"There is no such machine.",
		},
		refusal.MachineNo: {
			"machine_no 必须是由 8 位数字组成的字符串",
			"machine_no は 8 桁の数字からなる文字列にしてください",
			"machine_no must be a string of 8 digits.",
		},
		refusal.MachineNoTaken: {
			"该 machine_no 已被其他售货机使用",
			"この machine_no はすでに別の自販機で使われています",
			"Another machine has this machine_no already.",
		},
		refusal.MachineName: {
			"售货机名称须为 1 到 64 个字符，且不能包含控制字符",
			"自販機の名前は制御文字を含まない 1～64 文字にしてください",
			"The name of a machine must have 1 to 64 characters, without control characters.",
		},
		refusal.MachineZone: {
			"timezone 必须是 IANA 时区名称，例如 Asia/Shanghai",
			"timezone には Asia/Tokyo のような IANA タイムゾーン名を指定してください",
			"timezone must be the IANA name of a time zone, such as Asia/Shanghai.",
		},
		refusal.MachinePurchaseLimit: {
			"purchase_limit 必须是 1 到 3 的整数",
			"purchase_limit は 1～3 の整数にしてください",
			"purchase_limit must be a whole number from 1 to 3.",
		},
		refusal.MachineWrongPassword: {
			"售货机编号或 MQTT 密码错误",
			"自販機の番号または MQTT パスワードが違います",
			"The machine's number or its MQTT password is wrong.",
		},

		refusal.ProductNotFound: {
			"该售货机没有此商品",
			"この自販機にその商品はありません",
			"The machine has no such product.",
		},
		refusal.ProductID: {
			"商品 ID 必须是 1 到 9007199254740991 的整数",
			"商品の ID は 1～9007199254740991 の整数にしてください",
			"The id of a product must be a whole number from 1 to 9007199254740991.",
		},
		refusal.ProductIDTaken: {
			"该售货机已有使用此 ID 的商品",
			"この自販機には同じ ID の商品がすでにあります",
			"The machine has a product with this id already.",
		},
		refusal.ProductName: {
			"商品名称须为 1 到 64 个字符，且不能包含控制字符",
			"商品名は制御文字を含まない 1～64 文字にしてください",
			"The name of a product must have 1 to 64 characters, without control characters.",
		},
		refusal.ProductSlot: {
			"货道编号须为 1 到 16 个字符，且不能包含控制字符",
			"スロットは制御文字を含まない 1～16 文字にしてください",
			"The slot of a product must have 1 to 16 characters, without control characters.",
		},

		refusal.PickupNotFound: {
			"取货码不存在",
			"受取コードが存在しません",
			"There is no such pickup code.",
		},
		refusal.PickupQuantity: {
			"取货数量必须是 1 到 3 的整数",
			"受け取る個数は 1～3 の整数にしてください",
			"The quantity must be a whole number from 1 to 3.",
		},
		refusal.PickupTTL: {
			"ttl_seconds 必须是 1 到 2592000（30 天）的整数",
			"ttl_seconds は 1～2592000（30 日）の整数にしてください",
			"ttl_seconds must be a whole number from 1 to 2592000 (30 days).",
		},
		refusal.PickupMachineOff: {
			"该售货机已关闭取货码功能",
			"この自販機では受取コードの利用が無効になっています",
			"Pickup codes are switched off on this machine.",
		},
		refusal.PickupOverLimit: {
			"取货数量超过该售货机一次可出货的件数（purchase_limit）",
			"受け取る個数が、この自販機から一度に出せる数（purchase_limit）を超えています",
			"The quantity is more than this machine gives out at once (its purchase_limit).",
		},
		refusal.PickupProductHasLive: {
			"该商品在此售货机上已有有效的取货码；如需再生成一个，请将 allow_more 设为 true",
			"この商品にはすでに有効な受取コードがあります。さらに発行する場合は allow_more を true にしてください",
			"The product has a live pickup code on this machine already. To make another, set allow_more to true.",
		},
		refusal.PickupTooManyLive: {
			"该售货机的有效取货码已达到上限 1000 个，请先撤回一部分，或等待其被使用或过期",
			"この自販機の有効な受取コードが上限の 1000 個に達しています。一部を取り消すか、使用または失効するまでお待ちください",
			"This machine has 1000 live pickup codes, and no more are allowed. Withdraw some, or wait until some are used or expire.",
		},
		refusal.PickupUsed: {
			"该取货码已被使用，无法撤回",
			"この受取コードはすでに使用されているため、取り消せません",
			"This pickup code has been used already, so that it cannot be withdrawn.",
		},
		refusal.PickupExpired: {
			"该取货码已过期，无需撤回",
			"この受取コードは有効期限が切れているため、取り消す必要はありません",
			"This pickup code has expired: there is nothing left to withdraw.",
		},

		refusal.AccountNotFound: {
			"用户不存在",
			"ユーザーが存在しません",
			"There is no such user.",
		},
		refusal.AccountNameTaken: {
			"用户名已被占用，请换一个",
			"このユーザー名はすでに使われています。別の名前にしてください",
			"This username is taken. Please choose another.",
		},
		refusal.AccountNameInvalid: {
			"用户名须为 1 到 64 个字符，且不能包含空白字符或控制字符",
			"ユーザー名は空白や制御文字を含まない 1～64 文字にしてください",
			"A username must have 1 to 64 characters, without white space or control characters.",
		},
		refusal.AccountDisplayName: {
			"显示名称须为 1 到 64 个字符，且不能包含控制字符",
			"表示名は制御文字を含まない 1～64 文字にしてください",
			"A display name must have 1 to 64 characters, without control characters.",
		},
		refusal.AccountPassword: {
			"密码须为 8 到 128 个字符",
			"パスワードは 8～128 文字にしてください",
			"A password must have 8 to 128 characters.",
		},
		refusal.AccountRole: {
			"用户角色无效：1 为普通用户，10 为管理员",
			"権限が正しくありません。一般ユーザーは 1、管理者は 10 です",
			"This role does not exist: 1 is a user, 10 an admin.",
		},
		refusal.AccountRoleTooHigh: {
			"不能授予与自己相同或更高的权限",
			"自分と同等以上の権限をユーザーに与えることはできません",
			"You cannot give a user a role as high as yours or higher.",
		},
		refusal.AccountQuota: {
			"用户额度必须是不小于 0 的整数",
			"ユーザーの残高は 0 以上の整数にしてください",
			"A user's quota must be a whole number, 0 or more.",
		},
		refusal.AccountLastRoot: {
			"不能禁用最后一个启用的超级管理员，也不能更改其角色",
			"有効な最後の最高管理者を無効にしたり、その権限を変更したりすることはできません",
			"The last enabled root administrator cannot be disabled or given another role.",
		},
		refusal.AccountBalanceFull: {
			"兑换后余额将超出上限，兑换码未被使用",
			"引き換えると残高が上限を超えるため、処理を中止しました。コードは未使用のままです",
			"Your balance cannot hold this much more. The code has not been used.",
		},
		refusal.AccountWrongPassword: {
			"用户名或密码错误",
			"ユーザー名またはパスワードが違います",
			"The username or the password is wrong.",
		},
		refusal.AccountDisabled: {
			"该用户已被禁用，请联系管理员",
			"このユーザーは無効になっています。管理者にお問い合わせください",
			"This user has been disabled. Please ask an administrator.",
		},
		refusal.AccountTooManyGuesses: {
			"错误次数过多，请稍后再试",
			"試行回数の上限に達しました。しばらくしてからお試しください",
			"Too many wrong attempts. Please try again later.",
		},
		refusal.AccountWrongToken: {
			"访问令牌无效，请检查是否完整",
			"アクセストークンが正しくありません。途中で切れていないかご確認ください",
			"This access token is not valid. Please check that it is complete.",
		},
		refusal.AccountLink: {
			"此链接无效：可能已被使用、已被新链接取代，或已超过 24 小时。请向管理员索取新的链接",
			"このリンクは無効です。使用済みか、新しいリンクに置き換えられたか、24 時間を過ぎています。管理者に新しいリンクを依頼してください",
			"This link is not valid: it has been used or replaced, or is older than 24 hours. Please ask an administrator for a new one.",
		},
		refusal.AccountOneself: {
			"不能启用或禁用自己",
			"自分自身を有効にしたり無効にしたりすることはできません",
			"You cannot enable or disable yourself.",
		},
		refusal.AccountQuotaChange: {
			"额度变动必须是不为 0 的整数，减少时填负数",
			"残高の増減は 0 以外の整数にしてください。減らすときは負の数を指定します",
			"The change of quota must be a whole number other than 0; a negative one takes away.",
		},
		refusal.AccountReason: {
			"原因须为 1 到 200 个字符，且不能包含控制字符",
			"理由は制御文字を含まない 1～200 文字にしてください",
			"The reason must have 1 to 200 characters, without control characters.",
		},
		refusal.AccountBalanceTooLow: {
			"余额不足，变动后余额将低于 0",
			"残高が足りません。この変更を行うと残高が 0 を下回ります",
			"The user does not have that much: the balance would fall below 0.",
		},
		refusal.AccountBalanceTooHigh: {
			"变动后余额将超出上限 9223372036854775807",
			"この変更を行うと残高が上限の 9223372036854775807 を超えます",
			"The balance would be more than the most there can be, 9223372036854775807.",
		},

		refusal.Unauthenticated: {
			"未登录或令牌无效：请提供有效的访问令牌，并在 New-Api-User 中填写该令牌所属用户的 ID",
			"認証できません。有効なアクセストークンを送り、その所有者のユーザー ID を New-Api-User に指定してください",
			"Not authenticated: send a valid access token, and its owner's user id in New-Api-User.",
		},
		refusal.Forbidden: {
			"无权进行此操作，权限不足",
			"この操作を行う権限がありません",
			"You are not allowed to do this.",
		},
		refusal.InvalidRequest: {
			"无效的参数",
			"リクエストの内容が正しくありません",
			"The request is not valid.",
		},
		refusal.InvalidJSON: {
			"请求体不是有效的 JSON：须为单个 JSON 对象，其后不能有其他内容",
			"リクエスト本文が有効な JSON ではありません。JSON オブジェクトを 1 つだけ送ってください",
			"The request body is not valid JSON: send one JSON object and nothing after it.",
		},
		refusal.NotUTF8: {
			"请求体不是有效的 UTF-8 文本",
			"リクエスト本文が有効な UTF-8 ではありません",
			"The request body is not valid UTF-8.",
		},
		refusal.BodyTooLarge: {
			"请求体过大，不能超过 1 MiB",
			"リクエスト本文が大きすぎます。1 MiB までにしてください",
			"The request body is too large: at most 1 MiB is allowed.",
		},
		refusal.IdempotencyKeyTooLong: {
			"Idempotency-Key 过长，不能超过 255 字节",
			"Idempotency-Key が長すぎます。255 バイトまでにしてください",
			"The Idempotency-Key is too long: at most 255 bytes are allowed.",
		},
		refusal.IdempotencyKeyReused: {
			"该 Idempotency-Key 已用于内容不同的请求，请换一个",
			"この Idempotency-Key は内容の異なるリクエストですでに使われています。別のキーを使ってください",
			"This Idempotency-Key was used for a different request. Please use a new one.",
		},
		refusal.IdempotencyKeyBusy: {
			"使用此 Idempotency-Key 的请求仍在处理中，请稍后再试",
			"この Idempotency-Key のリクエストはまだ処理中です。しばらくしてからお試しください",
			"A request with this Idempotency-Key is still under way. Please try again in a moment.",
		},
		refusal.InvalidCursor: {
			"cursor 无效：请原样使用同一列表上一页返回的 next_cursor",
			"cursor が正しくありません。同じ一覧の前のページにある next_cursor をそのまま指定してください",
			"This cursor is not valid: send the next_cursor of the page before, of the same list, as it is.",
		},
		refusal.NoRoute: {
			"请求的地址不存在",
			"指定された URL は存在しません",
			"There is nothing at this address.",
		},
		refusal.MethodNotAllowed: {
			"该地址不支持此请求方法，支持的方法见 Allow 响应头",
			"この URL ではこのメソッドを使用できません。使用できるメソッドは Allow ヘッダーをご確認ください",
			"This method is not allowed here; the Allow header lists those that are.",
		},
		refusal.TooBusy: {
			"服务器繁忙，请稍后再试",
			"サーバーが混み合っています。しばらくしてからお試しください",
			"The server is busy. Please try again in a moment.",
		},
		refusal.Unavailable: {
			"服务暂时不可用，请稍后再试",
			"サービスを一時的に利用できません。しばらくしてからお試しください",
			"The service is temporarily unavailable. Please try again later.",
		},
		refusal.RedemptionListFailed: {
			"获取兑换码列表失败",
			"引き換えコードの一覧を取得できませんでした",
			"The redemption codes could not be listed.",
		},
		refusal.RedemptionSearchFailed: {
			"搜索兑换码失败",
			"引き換えコードを検索できませんでした",
			"The search for redemption codes failed.",
		},
		refusal.RedemptionDeleteFailed: {
			"删除失败",
			"削除できませんでした",
			"The redemption codes could not be removed.",
		},
	}
}
