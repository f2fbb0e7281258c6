package web

import (
	"net/http"

	"github.com/scrip-codes/scrip/internal/refusal"
)

// Status is the HTTP status of a refusal: on the drop-in surface of the API, and
// everywhere else.
type Status struct{ DropIn, HTTP int }

// Statuses is the HTTP status of each refusal, on the drop-in surface and
// elsewhere. Clients of the first read success from the body, so nearly all are
// 200 there. What a surface has no reason to say has a status there too.
func Statuses() map[refusal.Code]Status {
	return map[refusal.Code]Status{
		refusal.Unauthenticated:       {http.StatusUnauthorized, http.StatusUnauthorized},
		refusal.Forbidden:             {http.StatusForbidden, http.StatusForbidden},
		refusal.NoRoute:               {http.StatusNotFound, http.StatusNotFound},
		refusal.MethodNotAllowed:      {http.StatusMethodNotAllowed, http.StatusMethodNotAllowed},
		refusal.BodyTooLarge:          {http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge},
		refusal.AccountTooManyGuesses: {http.StatusTooManyRequests, http.StatusTooManyRequests},
		refusal.TooBusy:               {http.StatusTooManyRequests, http.StatusTooManyRequests},

		refusal.InvalidJSON:            {http.StatusOK, http.StatusBadRequest},
		refusal.NotUTF8:                {http.StatusOK, http.StatusBadRequest},
		refusal.InvalidRequest:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.InvalidCursor:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyTooLong:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyReused:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.IdempotencyKeyBusy:     {http.StatusOK, http.StatusConflict},
		refusal.Unavailable:            {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionListFailed:   {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionSearchFailed: {http.StatusOK, http.StatusServiceUnavailable},
		refusal.RedemptionDeleteFailed: {http.StatusOK, http.StatusServiceUnavailable},

		refusal.RedemptionNotFound:       {http.StatusOK, http.StatusNotFound},
		refusal.RedemptionKeyMissing:     {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionUnknown:        {http.StatusOK, http.StatusNotFound},
		refusal.RedemptionUsed:           {http.StatusOK, http.StatusConflict},
		refusal.RedemptionUsedByYou:      {http.StatusOK, http.StatusConflict},
		refusal.RedemptionDisabled:       {http.StatusOK, http.StatusConflict},
		refusal.RedemptionExpired:        {http.StatusOK, http.StatusConflict},
		refusal.RedemptionNameLength:     {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionNameCharacters: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionCountTooSmall:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionCountTooLarge:  {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionQuota:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionExpiry:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionExpiryRange:    {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionStatus:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.RedemptionUsedUnchanging: {http.StatusOK, http.StatusConflict},
		refusal.RedemptionJobNotFound:    {http.StatusOK, http.StatusNotFound},
		refusal.RedemptionJobTooLarge:    {http.StatusOK, http.StatusUnprocessableEntity},

		refusal.MerchantNotFound:     {http.StatusOK, http.StatusNotFound},
		refusal.MerchantName:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantAppKey:       {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantPayload:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantSignature:    {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MerchantExpiryUnit:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.MachineNo:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineNoTaken:       {http.StatusOK, http.StatusConflict},
		refusal.MachineName:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineZone:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachinePurchaseLimit: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.MachineWrongPassword: {http.StatusOK, http.StatusForbidden},
		refusal.ProductNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.ProductID:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.ProductIDTaken:       {http.StatusOK, http.StatusConflict},
		refusal.ProductName:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.ProductSlot:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupNotFound:       {http.StatusOK, http.StatusNotFound},
		refusal.PickupQuantity:       {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupTTL:            {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupMachineOff:     {http.StatusOK, http.StatusConflict},
		refusal.PickupOverLimit:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.PickupProductHasLive: {http.StatusOK, http.StatusConflict},
		refusal.PickupTooManyLive:    {http.StatusOK, http.StatusConflict},
		refusal.PickupUsed:           {http.StatusOK, http.StatusConflict},
		refusal.PickupExpired:        {http.StatusOK, http.StatusConflict},

		refusal.AccountNotFound:      {http.StatusOK, http.StatusNotFound},
		refusal.AccountNameTaken:     {http.StatusOK, http.StatusConflict},
		refusal.AccountNameInvalid:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountDisplayName:   {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountPassword:      {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountRole:          {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountRoleTooHigh:   {http.StatusOK, http.StatusForbidden},
		refusal.AccountQuota:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountLastRoot:      {http.StatusOK, http.StatusConflict},
		refusal.AccountBalanceFull:   {http.StatusOK, http.StatusConflict},
		refusal.AccountWrongPassword: {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountDisabled:      {http.StatusOK, http.StatusForbidden},

		refusal.AccountWrongToken:     {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountLink:           {http.StatusOK, http.StatusNotFound},
		refusal.AccountOneself:        {http.StatusOK, http.StatusConflict},
		refusal.AccountQuotaChange:    {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountReason:         {http.StatusOK, http.StatusUnprocessableEntity},
		refusal.AccountBalanceTooLow:  {http.StatusOK, http.StatusConflict},
		refusal.AccountBalanceTooHigh: {http.StatusOK, http.StatusConflict},
	}
}
