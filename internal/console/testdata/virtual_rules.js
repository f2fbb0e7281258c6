// What a virtual machine must do, tried on its rules alone: virtual_test.go runs
// this in a browser, behind virtual-rules.js, with the vectors of the signature.
// It returns what is wrong.
"use strict";

function tryMachineRules(vectors) {
	const wrong = [];
	const bytes = (s) => new TextEncoder().encode(s);
	const hour = 3_600_000;
	const noon = Date.UTC(2026, 4, 27, 12);

	function equal(what, got, want) {
		if (JSON.stringify(got) !== JSON.stringify(want)) {
			wrong.push(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
		}
	}

	// ---- Signatures.

	for (const v of vectors) {
		const members = new Map(Object.entries(v.params));
		equal(v.sign, machineRules.sign(members, v.app_key, v.form === "percent-encoded"), v.sign);
		members.set("sign", v.sign);
		equal("verified", machineRules.verify(members, v.app_key) !== "", true);
		for (const key of ["", v.app_key + " ", v.app_key.toUpperCase()]) {
			equal("verified by the key " + key, machineRules.verify(members, key), "");
		}
	}
	for (const [text, sum] of [
		["", "D41D8CD98F00B204E9800998ECF8427E"],
		["abc", "900150983CD24FB0D6963F7D28E17F72"],
		["12345678901234567890123456789012345678901234567890123456789012345678901234567890", "57EDF4A22BE3C955AC49DA2E2107B67A"],
		["a".repeat(55), "EF1772B6DFF9A122358552954AD0DF65"],
		["a".repeat(56), "3B0C8AC703F828B04C6C197006D17218"],
		["a".repeat(64), "014842D480B571495A4A0363793F7367"],
	]) {
		equal("MD5 of " + text.length + " bytes", machineRules.md5(bytes(text)), sum);
	}
	equal("encoded", machineRules.percentEncode("a b~*-._取"), "a+b%7E*-._%E5%8F%96");
	equal("left out", machineRules.signedText(new Map([["b", "1"], ["sign", "x"], ["c", ""], ["a", "2"], ["B", "3"]]), false), "B=3&a=2&b=1&key=");
	const right = machineRules.sign(new Map([["a", "1"]]), "k", false);
	for (const s of ["", right.toLowerCase(), right.slice(1), right + "0", "0".repeat(32)]) {
		equal("signed " + s, machineRules.verify(new Map([["a", "1"], ["sign", s]]), "k"), "");
	}

	// ---- Reading.

	for (const [what, text, reason] of [
		["a number", '{"a":1}', "json"],
		["a name that comes twice", '{"a":"1","a":"1"}', "twice"],
		["something behind", '{"a":"1"} x', "json"],
		["a comma too many", '{"a":"1",}', "json"],
		["a list", '["a"]', "form"],
		["a bare control character", '{"a":"\n"}', "json"],
		["no Base64", "e30", "form"],
		["a list in Base64", btoa('["a"]'), "json"],
		["nothing", "", "json"],
		["too much", '{"a":"' + "x".repeat(8192) + '"}', "large"],
		["too many members", "{" + Array.from({ length: 65 }, (_, i) => `"m${i}":""`).join() + "}", "members"],
	]) {
		let got = "";
		try {
			machineRules.decode(bytes(text));
		} catch (e) {
			got = e.reason;
		}
		equal(what, got, reason);
	}
	const read = machineRules.decode(bytes(' \n{ "a" : "\\u53d6\\"\\/" , "b":"" }\n'));
	equal("read", [...read.members], [["a", '取"/'], ["b", ""]]);
	equal("in Base64", [...machineRules.decode(bytes(btoa('{"a":"1"}'))).members], [["a", "1"]]);
	let cut = "";
	try {
		machineRules.decode(new Uint8Array([123, 34, 97, 34, 58, 34, 0xff, 34, 125]));
	} catch (e) {
		cut = e.reason;
	}
	equal("not UTF-8", cut, "text");

	// ---- A machine, with a clock and a store of its own.

	function world(options = {}) {
		const w = { now: noon, saved: null, full: false };
		w.store = {
			load: () => w.saved,
			save(text) {
				if (w.full) {
					throw new Error("full");
				}
				w.saved = text;
			},
		};
		w.start = () => {
			w.m = new machineRules.Machine({
				no: "16327138", appKey: "kva", percent: false, base64: false, ...options, now: () => w.now, store: w.store,
			});
			return w.m;
		};
		w.start();
		return w;
	}
	const style = { appKey: "kva", percent: false, base64: false };
	function create(id, code, more = {}) {
		const at = more.expires ?? noon + 2 * hour;
		return [
			["timestamp", "1748330699"], ["machine_id", "10009"], ["method", "client.pickup_codes.create"], ["client_id", more.no ?? "16327138"],
			["id", String(id)], ["product_id", "20001"], ["code", code], ["quantity", more.quantity ?? "2"],
			["expired_at", String(more.seconds ? at / 1000 : at)], ["expired_day", "2026-05-27 22:00:00"], ["used", more.used ?? "0"], ["status", "0"],
		];
	}
	const withdrawal = (id, no = "16327138") => [
		["timestamp", "1748330699"], ["machine_id", "10009"], ["method", "client.pickup_codes.delete"], ["client_id", no], ["id", String(id)], ["status", "0"],
	];
	const give = (w, members, s = style) => {
		const r = w.m.receive(bytes(machineRules.encode(members, s)));
		return r.reason || r.outcome;
	};
	const enter = (w, code) => {
		try {
			const p = w.m.enter(code);
			w.m.done();
			return "vends " + p.quantity;
		} catch (e) {
			if (!(e instanceof machineRules.Wrong)) {
				return "failed";
			}
			return e.reason + (e.left === undefined ? "" : " " + e.left);
		}
	};
	const codes = (w) => w.m.codes().map((c) => c.code);

	// A code's way, in all forms of messages.
	for (const base64 of [false, true]) {
		for (const percent of [false, true]) {
			for (const seconds of [false, true]) {
				const w = world({ base64, percent });
				const what = `base64 ${base64}, percent ${percent}, seconds ${seconds}: `;
				equal(what + "create", give(w, create(7, "00112233", { seconds }), { appKey: "kva", base64, percent }), "added");
				equal(what + "kept", w.m.codes().map((c) => [c.id, c.product, c.code, c.quantity, c.expires]), [["7", "20001", "00112233", 2, noon + 2 * hour]]);
				equal(what + "enter", enter(w, " 0011 2233 "), "vends 2");
				const use = w.m.nextReport();
				const put = machineRules.decode(bytes(w.m.encode(w.m.put(use))));
				equal(what + "put", [put.base64, machineRules.verify(put.members, "kva"), put.members.get("id"), put.members.get("used"), put.members.get("machine_id"), put.members.get("client_id")],
					[base64, "raw", "7", "1", "10009", "16327138"]);
				w.m.reported(use);
				equal(what + "to report", [w.m.unreported(), w.m.nextReport() ?? null], [0, null]);
				equal(what + "again", [give(w, create(7, "00112233", { seconds })), w.m.unreported()], ["again", 1]);
				equal(what + "entered again", enter(w, "00112233"), "used");
			}
		}
	}
	equal("machine's own form", machineRules.verify(machineRules.decode(bytes(world({ percent: true }).m.encode([["timestamp", "1"], ["machine_id", "000"], ["method", "m"], ["client_id", "1"], ["reason", "a b"]]))).members, "kva"), "percent-encoded");
	equal("machine without an id", machineRules.decode(bytes(world().m.encode(world().m.heartbeat(3)))).members.get("machine_id"), "000");

	// What is not to be believed.
	{
		const w = world();
		for (const [what, members, s, reason] of [
			["for another machine", create(1, "00000001", { no: "16327139" }), style, "address"],
			["with another key", create(2, "00000002"), { ...style, appKey: "kvb" }, "signature"],
			["with no key", create(2, "00000002"), { ...style, appKey: "" }, "signature"],
			["expired", create(3, "00000003", { expires: noon }), style, "late"],
			["five digits", create(4, "00004"), style, "member"],
			["four pieces", create(4, "00000004", { quantity: "4" }), style, "member"],
			["used", create(4, "00000004", { used: "1" }), style, "member"],
			["never expires", create(4, "00000004", { expires: 253402300800000 }), style, "member"],
			["an id of nought", create(0, "00000004"), style, "member"],
		]) {
			equal(what, [give(w, members, s), codes(w)], [reason, []]);
		}
		equal("something else", [w.m.receive(bytes("hello!!!")).reason !== "", codes(w)], [true, []]);
		give(w, create(9, "00000009"));
		equal("a forged withdrawal", [give(w, withdrawal(9), { ...style, appKey: "kvb" }), give(w, withdrawal(9, "16327139")), codes(w)], ["signature", "address", ["00000009"]]);
		equal("large ids", [give(w, create("9223372036854775807", "00000010")), w.m.codes()[1]?.id], ["added", "9223372036854775807"]);
	}

	// The power fails while goods move, and there is no network.
	{
		const w = world();
		give(w, create(7, "00112233"));
		w.m.enter("00112233");
		equal("while it vends", [w.m.nextReport() ?? null, enter(w, "00112233")], [null, "busy"]);
		w.start();
		equal("after the crash", [w.m.unreported(), codes(w), enter(w, "00112233"), w.m.nextReport()?.id], [1, [], "used", "7"]);
		equal("created again", [give(w, create(7, "00112233")), codes(w)], ["nothing", []]);
	}

	// Withdrawals, early, late and twice.
	{
		const w = world();
		give(w, create(1, "00000001"));
		give(w, create(2, "00000002"));
		equal("withdrawn", [give(w, withdrawal(1)), give(w, withdrawal(1)), give(w, create(1, "00000001")), give(w, withdrawal(404))], ["withdrawn", "nothing", "nothing", "nothing"]);
		w.start();
		equal("left", [codes(w), enter(w, "00000001"), enter(w, "00000002")], [["00000002"], "unknown 4", "vends 2"]);
		equal("too late", [give(w, withdrawal(2)), w.m.unreported()], ["nothing", 1]);
		w.m.reported(w.m.nextReport());
		equal("and once the use was reported", [give(w, withdrawal(2)), w.m.unreported()], ["again", 1]);
		equal("of a new server", [give(w, create(1, "55555555")), codes(w)], ["added", ["55555555"]]);
		equal("and of another", [give(w, create(1, "66666666")), codes(w)], ["added", ["66666666"]]);
	}

	// Expiry, and a clock that is set back.
	{
		const w = world();
		give(w, create(1, "00000001"));
		give(w, create(2, "00000002"));
		equal("used in time", enter(w, "00000002"), "vends 2");
		w.now = noon + 2 * hour - 1;
		equal("just before", codes(w), ["00000001"]);
		w.now++;
		equal("at its time", [codes(w), enter(w, "00000001")], [[], "expired"]);
		enter(w, "99999999");
		w.now -= hour;
		w.start();
		equal("the clock set back", [codes(w), enter(w, "00000001")], [[], "expired"]);
		w.now += 25 * hour;
		equal("a day later", enter(w, "00000001"), "unknown 3");
		equal("what is kept", [w.saved.includes("00000001"), w.saved.includes("00000002")], [false, true]);
		w.now += 100 * 24 * hour;
		w.m.forget();
		equal("a use that was not reported", w.m.unreported(), 1);
		w.m.reported(w.m.nextReport());
		w.m.forget();
		equal("and once it was", w.saved.includes("00000002"), false);
	}

	// Guessing.
	{
		const w = world();
		give(w, create(7, "00112233"));
		equal("too short", enter(w, "1234"), "digits");
		equal("guesses", [1, 2, 3, 4, 5].map(() => enter(w, "99999999")), ["unknown 4", "unknown 3", "unknown 2", "unknown 1", "paused"]);
		w.start();
		w.now += 5 * 60_000 - 1;
		equal("in the pause, after a restart", enter(w, "00112233"), "paused");
		w.now -= hour;
		equal("the clock set back", enter(w, "00112233"), "paused");
		w.now += 5 * 60_000 - 1;
		equal("the pause that began again", enter(w, "00112233"), "paused");
		w.now++;
		equal("after the pause", [enter(w, "99999999"), enter(w, "00112233"), enter(w, "99999999")], ["unknown 4", "vends 2", "unknown 4"]);
	}
	{
		const w = world();
		give(w, create(7, "00112233"));
		[1, 2, 3, 4, 5].forEach(() => enter(w, "99999999"));
		w.now += 5 * 60_000;
		equal("a code ends a pause for good", [enter(w, "00112233"), w.m.pausedUntil(), (w.now -= 60_000, enter(w, "00112233"))], ["vends 2", 0, "used"]);
	}

	// A store that takes nothing: nothing is known, vended or counted.
	{
		const w = world();
		give(w, create(7, "00112233"));
		w.full = true;
		let thrown = false;
		try {
			give(w, create(8, "44444444"));
		} catch {
			thrown = true;
		}
		equal("full", [thrown, codes(w), enter(w, "00112233"), enter(w, "99999999")], [true, ["00112233"], "failed", "failed"]);
		w.full = false;
		equal("and then", [enter(w, "99999999"), enter(w, "00112233")], ["unknown 4", "vends 2"]);
	}

	// As many codes as it can keep, and a memory that is not one.
	{
		const w = world();
		const one = { product: "1", quantity: 1, expires: noon + hour, state: "live" };
		const all = Array.from({ length: machineRules.codesMax }, (_, i) => ({ ...one, id: String(i + 1), code: String(i).padStart(8, "0") }));
		const memory = { no: "16327138", id: "", codes: all, wrong: 0, pausedFrom: 0, pausedUntil: 0 };
		w.saved = JSON.stringify(memory);
		w.start();
		equal("one more", give(w, create(20000, "90000000")), "full");
		w.now = noon + hour;
		equal("once there is room", give(w, create(20000, "90000000")), "added");
		for (const [what, text] of [
			["not JSON", "{"], ["another machine's", JSON.stringify({ ...memory, no: "16327139" })], ["null", "null"],
			["an impossible code", JSON.stringify({ ...memory, codes: [{ ...all[0], quantity: 4 }] })],
			["a state that means nothing", JSON.stringify({ ...memory, codes: [{ ...all[0], state: "sold" }] })],
			["impossible guesses", JSON.stringify({ ...memory, wrong: 5 })],
		]) {
			w.saved = text;
			let reason = "";
			try {
				w.start();
			} catch (e) {
				reason = e.reason;
			}
			equal(what, reason, "memory");
		}
	}
	return wrong;
}
