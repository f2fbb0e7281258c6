package api

import (
	"fmt"

	"github.com/scrip-codes/scrip/internal/refusal"
	"github.com/scrip-codes/scrip/internal/web"
)

// fault is a request that is invalid in a way that can be named.
type fault struct {
	hint hint
	name string // of the member, where the hint has one
}

// hint is a way in which a request can be invalid.
type hint int

const (
	hintObject hint = iota
	hintInteger
	hintText
	hintTextOrInteger
	hintTruth
	hintMissing
	hintPathID
	hintLimit
	hintBody
	hintIdempotencyKey
	hintBearer
)

// Error says what is wrong, for a log.
func (f *fault) Error() string { return fmt.Sprintf("invalid request: hint %d %s", f.hint, f.name) }

// Unwrap returns the refusal that the fault is.
func (f *fault) Unwrap() error {
	if f.hint == hintBearer {
		return refusal.New(refusal.Unauthenticated)
	}
	return refusal.New(refusal.InvalidRequest)
}

func (f *fault) in(hints map[hint]web.Words, t web.Tongue) string {
	text := hints[f.hint].In(t)
	if f.name == "" {
		return text
	}
	return fmt.Sprintf(text, f.name)
}

// hints is the words of the faults. Those about a member have a place for its
// name.
func hints() map[hint]web.Words {
	return map[hint]web.Words{
		hintObject: {
			ZH: "请求体必须是一个 JSON 对象，例如 {\"key\":\"…\"}",
			JA: "リクエスト本文は {\"key\":\"…\"} のような JSON オブジェクトにしてください",
			EN: "The request body must be one JSON object, such as {\"key\":\"…\"}.",
		},
		hintInteger: {
			ZH: "参数 %s 必须是 64 位范围内的整数，不带引号、小数点和指数",
			JA: "%s は 64 ビットに収まる整数で、引用符・小数点・指数を付けずに指定してください",
			EN: "%s must be a whole number that fits 64 bits, without quotes, decimal point or exponent.",
		},
		hintText: {
			ZH: "参数 %s 必须是字符串",
			JA: "%s は文字列で指定してください",
			EN: "%s must be a string.",
		},
		hintTextOrInteger: {
			ZH: "参数 %s 必须是字符串或整数",
			JA: "%s は文字列または整数で指定してください",
			EN: "%s must be a string or a whole number.",
		},
		hintTruth: {
			ZH: "参数 %s 必须是 true 或 false",
			JA: "%s は true か false で指定してください",
			EN: "%s must be true or false.",
		},
		hintMissing: {
			ZH: "缺少参数 %s",
			JA: "%s を指定してください",
			EN: "%s is missing.",
		},
		hintPathID: {
			ZH: "路径中的 ID 必须是 64 位范围内的整数",
			JA: "パスの ID は 64 ビットに収まる整数で指定してください",
			EN: "The id in the path must be a whole number of at most 64 bits.",
		},
		hintLimit: {
			ZH: "limit 必须是 1 到 100 的整数",
			JA: "limit は 1～100 の整数で指定してください",
			EN: "limit must be a whole number from 1 to 100.",
		},
		hintBody: {
			ZH: "请求体接收不完整，请重试",
			JA: "リクエスト本文を最後まで受信できませんでした。もう一度お試しください",
			EN: "The request body did not arrive in full. Please try again.",
		},
		hintIdempotencyKey: {
			ZH: "Idempotency-Key 只能有一个值，且不能为空",
			JA: "Idempotency-Key には空でない値を 1 つだけ指定してください",
			EN: "Send exactly one Idempotency-Key, which must not be empty.",
		},
		hintBearer: {
			ZH: "未登录或令牌无效：请在 Authorization 请求头中以 Bearer 方式提供有效的访问令牌",
			JA: "認証できません。有効なアクセストークンを Authorization ヘッダーに Bearer 形式で指定してください",
			EN: "Not authenticated: send a valid access token in the header Authorization, after the word Bearer.",
		},
	}
}
